"""That the types of a channel's row are those of its columns."""

import ast
import inspect

from db.codec import channel_record
from db.connection.types import Connection
from db.queries import sql

TYPES = {
    "uuid": "UUID", "bool": "bool", "int2": "int", "int4": "int", "int8": "int", "text": "str",
    "varchar": "str", "jsonb": "str", "timestamptz": "datetime",
}  # fmt: skip
"""What the driver makes of PostgreSQL's types."""


def written_types() -> dict[str, str]:
    """Return the type of each column that `ChannelRecord` names, without `| None`."""
    return {
        constant.value: ast.unparse(node.returns).removesuffix(" | None")
        for node in ast.walk(ast.parse(inspect.getsource(channel_record)))
        if isinstance(node, ast.FunctionDef) and node.returns is not None
        for constant in ast.walk(node.args)
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
    }


async def test_channel_record_names_the_columns_of_its_statement_by_their_types(
    connection: Connection,
) -> None:
    named = written_types()

    statement = await connection.prepare(sql.read_channels)

    columns = {column.name: TYPES[column.type.name] for column in statement.get_attributes()}
    assert len(named) > 20
    assert named == {name: columns.get(name) for name in named}
