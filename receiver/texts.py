"""What a reason means and what helps, in a sentence for people; knows no channel and no tenant.

A later issue moves the sentences to catalogues; callers only know `reason_text`.
"""

from typing import Final

from statemachine.model import Reason

DEFAULT_LOCALE: Final = "pt-BR"
LOCALES: Final = ("pt-BR", "en", "es")


def reason_text(reason: Reason, locale: str | None) -> str:
    """Return the sentence in the locale, its language, or else in Portuguese."""
    portuguese, english, spanish = _TEXTS[reason]
    match (locale or DEFAULT_LOCALE).partition("-")[0].lower():
        case "en":
            return english
        case "es":
            return spanish
        case _:
            return portuguese


# Portuguese, English, Spanish.
_TEXTS: Final[dict[Reason, tuple[str, str, str]]] = {
    Reason.LOGGED_OUT: (
        "O aparelho foi desconectado no WhatsApp do celular. Leia um novo QR code para conectar de novo.",
        "The device was logged out in WhatsApp on the phone. Scan a new QR code to connect it again.",
        "El dispositivo fue desvinculado en el WhatsApp del teléfono. Escanee un nuevo código QR para "
        "conectarlo otra vez.",
    ),
    Reason.LOGGED_OUT_BY_API: (
        "A sessão foi encerrada por um comando no gateway. Leia um novo QR code para conectar de novo.",
        "The session was logged out by a command at the gateway. Scan a new QR code to connect it again.",
        "La sesión fue cerrada por un comando en el gateway. Escanee un nuevo código QR para conectarla "
        "otra vez.",
    ),
    Reason.BANNED: (
        "O WhatsApp bloqueou este número. Peça uma análise no aplicativo do celular ou use outro número.",
        "WhatsApp has banned this number. Ask for a review in the app on the phone or use another number.",
        "WhatsApp bloqueó este número. Pida una revisión en la aplicación del teléfono o use otro número.",
    ),
    Reason.BANNED_TEMPORARILY: (
        "O WhatsApp bloqueou este número por um tempo. Aguarde o fim do bloqueio e leia um novo QR code.",
        "WhatsApp has banned this number for a while. Wait until the ban ends, then scan a new QR code.",
        "WhatsApp bloqueó este número por un tiempo. Espere el fin del bloqueo y escanee un nuevo código QR.",
    ),
    Reason.QR_LIMIT: (
        "O QR code não foi lido a tempo e o gateway parou de gerá-lo. Peça um novo QR code e leia-o.",
        "The QR code was not scanned in time and is no longer shown. Ask for a new one and scan it.",
        "El código QR no fue escaneado a tiempo y el gateway dejó de mostrarlo. Pida uno nuevo y escanéelo.",
    ),
    Reason.SCAN_NEEDED: (
        "O canal perdeu a sessão e espera a leitura de um QR code. Leia-o com o WhatsApp do celular.",
        "The channel has lost its session and waits for a scan. Scan the QR code with WhatsApp on the phone.",
        "El canal perdió la sesión y espera un escaneo. Escanee el código QR con el WhatsApp del teléfono.",
    ),
    Reason.INSTANCE_REMOVED: (
        "A instância foi removida do gateway. Crie-a de novo e leia o QR code, ou exclua o canal aqui.",
        "The instance was removed from the gateway. Make it again and scan its QR, or delete the channel.",
        "La instancia fue eliminada del gateway. Créela otra vez y escanee el código QR, o elimine el canal.",
    ),
    Reason.SESSION_MISSING: (
        "O gateway não tem mais a sessão deste canal. Confira o nome da instância e leia um novo QR code.",
        "The gateway no longer has this channel's session. Check the instance's name and scan a new QR code.",
        "El gateway ya no tiene la sesión de este canal. Revise el nombre de la instancia y escanee un nuevo "
        "código QR.",
    ),
    Reason.EXPIRED: (
        "A assinatura do canal no gateway venceu. Renove-a; depois leia um novo QR code, se for preciso.",
        "The gateway's subscription for this channel has ended. Renew it; then scan a QR code if need be.",
        "La suscripción del canal en el gateway venció. Renuévela; luego escanee un código QR si hace falta.",
    ),
    Reason.CONNECTION_LOST: (
        "A conexão com o WhatsApp caiu. Costuma voltar sozinha; se não, confira a internet do gateway.",
        "The connection to WhatsApp was lost. It often returns by itself; if not, check the gateway's line.",
        "Se perdió la conexión con WhatsApp. Suele volver sola; si no, revise la red del gateway.",
    ),
    Reason.CONNECTION_CLOSED: (
        "O WhatsApp fechou a conexão. Costuma voltar sozinha; se não voltar, reinicie a instância.",
        "WhatsApp closed the connection. It usually returns by itself; if not, restart the instance.",
        "WhatsApp cerró la conexión. Suele volver sola; si no, reinicie la instancia.",
    ),
    Reason.CONNECTION_REPLACED: (
        "Outra conexão usa a mesma sessão. Deixe a sessão em um só gateway e desligue a outra.",
        "Another connection uses the same session. Keep the session on one gateway only and stop the other.",
        "Otra conexión usa la misma sesión. Deje la sesión en un solo gateway y apague la otra.",
    ),
    Reason.RESTART_REQUIRED: (
        "O WhatsApp pediu que a conexão seja reiniciada. O gateway faz isso sozinho em instantes.",
        "WhatsApp asked for the connection to be restarted. The gateway does so by itself within moments.",
        "WhatsApp pidió reiniciar la conexión. El gateway lo hace solo en unos instantes.",
    ),
    Reason.BAD_SESSION: (
        "A sessão no gateway está com defeito. Reinicie a instância; se não bastar, leia um novo QR code.",
        "The session at the gateway is damaged. Restart the instance; if that doesn't help, scan a QR code.",
        "La sesión en el gateway está dañada. Reinicie la instancia; si no basta, escanee un código QR.",
    ),
    Reason.DISCONNECTED: (
        "O gateway avisou uma desconexão sem dizer por quê. Reinicie a instância ou leia o QR code.",
        "The gateway reported a disconnection without a reason. Restart the instance or scan its QR code.",
        "El gateway avisó una desconexión sin decir por qué. Reinicie la instancia o escanee el código QR.",
    ),
    Reason.INCOMPLETE_SESSION: (
        "A sessão ficou incompleta. Reinicie a instância; se não bastar, leia um novo QR code.",
        "The session is incomplete. Restart the instance; if that isn't enough, scan a new QR code.",
        "La sesión quedó incompleta. Reinicie la instancia; si no basta, escanee un nuevo código QR.",
    ),
    Reason.CONNECTING: (
        "O gateway está conectando ao WhatsApp. Aguarde; se não terminar, confira a internet do gateway.",
        "The gateway is connecting to WhatsApp. Wait; if it doesn't finish, check the gateway's network.",
        "El gateway se está conectando a WhatsApp. Espere; si no termina, revise la red del gateway.",
    ),
    Reason.QR_SHOWN: (
        "O gateway mostra um QR code. Leia-o com o WhatsApp do celular para conectar.",
        "The gateway shows a QR code. Scan it with WhatsApp on the phone to connect.",
        "El gateway muestra un código QR. Escanéelo con el WhatsApp del teléfono para conectar.",
    ),
    Reason.UNREACHABLE: (
        "O gateway não responde. Confira se ele está no ar e se o endereço está certo.",
        "The gateway doesn't answer. Check that it is running and that its address is right.",
        "El gateway no responde. Revise que esté funcionando y que la dirección sea correcta.",
    ),
    Reason.UNAUTHORIZED: (
        "O gateway recusou a chave. Corrija a chave deste canal.",
        "The gateway refused the key. Correct this channel's key.",
        "El gateway rechazó la clave. Corrija la clave de este canal.",
    ),
    Reason.NOT_LOADED: (
        "O gateway conhece a instância, mas não a carregou. Reinicie a instância.",
        "The gateway knows the instance but has not loaded it. Restart the instance.",
        "El gateway conoce la instancia, pero no la cargó. Reinicie la instancia.",
    ),
    Reason.PROVIDER_UNAVAILABLE: (
        "O WhatsApp ou o provedor está fora do ar. Costuma voltar sozinho; aguarde.",
        "WhatsApp or the provider is unavailable. It usually returns by itself; wait.",
        "WhatsApp o el proveedor no está disponible. Suele volver solo; espere.",
    ),
    Reason.OPEN_BUT_DEAD: (
        "O gateway diz que está conectado, mas a conexão está morta. Reinicie o processo do gateway: "
        "reiniciar só a instância não adianta. Se ele pedir um QR code depois, leia-o.",
        "The gateway says that it is connected, but the connection is dead. Restart the gateway's process: "
        "restarting the instance alone does nothing. If it shows a QR code afterwards, scan it.",
        "El gateway dice que está conectado, pero la conexión está muerta. Reinicie el proceso del gateway: "
        "reiniciar solo la instancia no sirve. Si luego pide un código QR, escanéelo.",
    ),
    Reason.FLAPPING: (
        "O canal cai e volta sem parar. Confira a internet do gateway e se outro lugar usa a sessão.",
        "The channel keeps dropping and returning. Check the gateway's network and whether the session is in "
        "use elsewhere.",
        "El canal se cae y vuelve sin parar. Revise la red del gateway y si la sesión se usa en otro lugar.",
    ),
    Reason.UNKNOWN: (
        "O gateway deu um motivo que não conhecemos. Veja os eventos do canal; reiniciar costuma ajudar.",
        "The gateway gave a reason that we don't know. See the channel's events; a restart often helps.",
        "El gateway dio un motivo que no conocemos. Vea los eventos del canal; reiniciar la instancia suele "
        "ayudar.",
    ),
}
