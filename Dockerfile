# One image for every command: serve (the default), demo, migrate, channels, incidents, token.
# Why it is so, and what is tested of it: docs/decisions/0012-containers.md
FROM python:3.11-slim-bookworm AS base


FROM base AS builder
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/zapwatch
WORKDIR /build

# Wheels only: nothing is compiled, so neither stage needs a compiler.
COPY requirements.lock ./
RUN /opt/zapwatch/bin/python -m pip install --no-deps --only-binary=:all: --require-hashes -r requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY statemachine ./statemachine
COPY db ./db
COPY receiver ./receiver
RUN /opt/zapwatch/bin/python -m pip install --no-deps --no-build-isolation . \
 && /opt/zapwatch/bin/python -m pip uninstall --yes setuptools pip


FROM base
# The account has a line in /etc/passwd because initdb looks for one, and a fixed number so that volumes keep theirs.
RUN groupadd --gid 10001 zapwatch \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin zapwatch \
 && install --directory --owner=zapwatch --group=zapwatch --mode=0700 /data
COPY --from=builder /opt/zapwatch /opt/zapwatch

ENV PATH=/opt/zapwatch/bin:$PATH ZAPWATCH_HOST=0.0.0.0 ZAPWATCH_DATA_DIR=/data
WORKDIR /data
USER 10001:10001
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM

# http.client, because urllib would ask a proxy that the environment names.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-I", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('ZAPWATCH_PORT') or 8080), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]

ENTRYPOINT ["zapwatch"]
CMD ["serve"]
