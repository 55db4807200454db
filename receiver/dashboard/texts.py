"""The sentences of the pages, in the languages that people read; knows no channel and no request."""

from collections.abc import Mapping
from typing import Final

from receiver.texts import DEFAULT_LOCALE, LOCALES

NAMES: Final = {"pt-BR": "Português", "en": "English", "es": "Español"}
"""The languages, each in its own."""


def texts_in(locale: str) -> Mapping[str, str]:
    """Return all sentences in one of `LOCALES`."""
    column = LOCALES.index(locale)
    return {name: sentences[column] for name, sentences in _TEXTS.items()}


def language_of(wanted: str | None, accepted: str | None, tenants: str | None) -> str:
    """Return the reader's language: as asked for, else the browser's first known, else the tenant's."""
    candidates = [wanted or "", *_by_weight(accepted or ""), tenants or ""]
    return next((known for candidate in candidates if (known := _known(candidate))), DEFAULT_LOCALE)


def _known(tag: str) -> str | None:
    language = tag.partition("-")[0].lower()
    return next((locale for locale in LOCALES if locale.partition("-")[0] == language), None)


def _by_weight(accepted: str) -> list[str]:
    weighed = []
    for part in accepted[:200].split(","):
        tag, _, weight = part.strip().partition(";q=")
        try:
            weighed.append((-float(weight or 1), tag))
        except ValueError:
            continue
    return [tag for weight, tag in sorted(weighed, key=lambda pair: pair[0]) if weight < 0]


# Portuguese, English, Spanish: in the order of `LOCALES`.
_TEXTS: Final[dict[str, tuple[str, str, str]]] = {
    "title": ("Reconectar o WhatsApp", "Reconnect WhatsApp", "Reconectar WhatsApp"),
    "of": ("WhatsApp de", "WhatsApp of", "WhatsApp de"),
    "your": ("Seu WhatsApp", "Your WhatsApp", "Su WhatsApp"),
    "lost": (
        "Este WhatsApp perdeu a conexão. Leia o código QR com o celular deste número para voltar a enviar e "
        "receber mensagens.",
        "This WhatsApp has lost its connection. Scan the QR code with this number's phone to send and "
        "receive messages again.",
        "Este WhatsApp perdió la conexión. Escanee el código QR con el teléfono de este número para volver a "
        "enviar y recibir mensajes.",
    ),
    "step_open": (
        "Abra o <b>WhatsApp</b> no celular deste número.",
        "Open <b>WhatsApp</b> on this number's phone.",
        "Abra <b>WhatsApp</b> en el teléfono de este número.",
    ),
    "step_menu": (
        "Toque em <b>Mais opções</b> ou <b>Configurações</b> e depois em <b>Dispositivos conectados</b>.",
        "Tap <b>More options</b> or <b>Settings</b>, then <b>Linked devices</b>.",
        "Toque <b>Más opciones</b> o <b>Configuración</b> y luego <b>Dispositivos vinculados</b>.",
    ),
    "step_scan": (
        "Toque em <b>Conectar dispositivo</b> e aponte a câmera para este código.",
        "Tap <b>Link a device</b> and point the camera at this code.",
        "Toque <b>Vincular un dispositivo</b> y apunte la cámara a este código.",
    ),
    "how": ("Como ler o código", "How to scan", "Cómo escanear"),
    "qr": (
        "Código QR para conectar o WhatsApp",
        "QR code that connects WhatsApp",
        "Código QR para conectar WhatsApp",
    ),
    "ready": ("Aguardando a leitura…", "Waiting for the scan…", "Esperando el escaneo…"),
    "ready_more": (
        "O código se renova sozinho enquanto esta página está aberta.",
        "The code renews itself while this page is open.",
        "El código se renueva solo mientras esta página está abierta.",
    ),
    "preparing": ("Preparando o código QR…", "Preparing the QR code…", "Preparando el código QR…"),
    "preparing_more": (
        "Leva alguns segundos. Não feche esta página.",
        "This takes a few seconds. Keep this page open.",
        "Tarda unos segundos. No cierre esta página.",
    ),
    "connected": ("Conectado", "Connected", "Conectado"),
    "connected_more": (
        "O WhatsApp está conectado de novo. Você já pode fechar esta página.",
        "WhatsApp is connected again. You can close this page.",
        "WhatsApp está conectado otra vez. Ya puede cerrar esta página.",
    ),
    "connecting": ("Conectando…", "Connecting…", "Conectando…"),
    "connecting_more": (
        "Falta pouco. Deixe o celular ligado e com internet.",
        "Almost there. Keep the phone on and online.",
        "Falta poco. Deje el teléfono encendido y con internet.",
    ),
    "waiting": (
        "A conexão caiu, mas pode voltar sozinha",
        "The connection dropped, but may come back by itself",
        "La conexión se cayó, pero puede volver sola",
    ),
    "waiting_more": (
        "Confira se o celular está ligado e com internet. Se for preciso ler um código, ele aparece aqui.",
        "Check that the phone is on and online. If a scan is needed, the code appears here.",
        "Compruebe que el teléfono esté encendido y con internet. Si hace falta un código, aparecerá aquí.",
    ),
    "down": (
        "O código não pode ser mostrado agora",
        "The code can't be shown right now",
        "El código no se puede mostrar ahora",
    ),
    "down_more": (
        "O serviço que conecta o WhatsApp não está respondendo. Continuamos tentando: o código aparece aqui "
        "assim que der.",
        "The service that connects WhatsApp is not answering. We keep trying: the code appears here as "
        "soon as there is one.",
        "El servicio que conecta WhatsApp no responde. Seguimos intentando: el código aparecerá aquí en "
        "cuanto se pueda.",
    ),
    "refused": (
        "Este canal não mostra um código QR",
        "This channel shows no QR code",
        "Este canal no muestra un código QR",
    ),
    "refused_more": (
        "Fale com quem cuida do seu WhatsApp: a conexão precisa ser verificada por lá.",
        "Talk to whoever looks after your WhatsApp: the connection has to be checked there.",
        "Hable con quien cuida de su WhatsApp: la conexión tiene que revisarse allí.",
    ),
    "typed_only": (
        "Conecte com um código de letras",
        "Connect with a code of letters",
        "Conecte con un código de letras",
    ),
    "typed_only_more": (
        "Aqui não há imagem do código QR. Peça abaixo um código para digitar no celular.",
        "There is no picture of the QR code here. Below you get a code to type on the phone.",
        "Aquí no hay imagen del código QR. Pida abajo un código para escribir en el teléfono.",
    ),
    "by_number": (
        "Está com esta página aberta no próprio celular?",
        "Is this page open on that same phone?",
        "¿Tiene esta página abierta en el mismo teléfono?",
    ),
    "by_number_more": (
        "Receba um código para digitar no WhatsApp em vez de ler o QR.",
        "Get a code to type into WhatsApp instead of scanning.",
        "Reciba un código para escribir en WhatsApp en vez de escanear.",
    ),
    "number": (
        "Número do celular, com país e DDD",
        "Phone number with country code",
        "Número del teléfono con código de país",
    ),
    "get_code": ("Receber código", "Get a code", "Recibir código"),
    "code_is": ("Seu código", "Your code", "Su código"),
    "code_use": (
        "No WhatsApp: Dispositivos conectados, Conectar dispositivo, Conectar com número de telefone. Digite "
        "este código.",
        "In WhatsApp: Linked devices, Link a device, Link with phone number instead. Type this code.",
        "En WhatsApp: Dispositivos vinculados, Vincular un dispositivo, Vincular con número de teléfono. "
        "Escriba este código.",
    ),
    "code_wrong": (
        "Confira o número: de 8 a 15 algarismos, com o código do país.",
        "Check the number: 8 to 15 digits, with the country code.",
        "Revise el número: de 8 a 15 cifras, con el código de país.",
    ),
    "code_later": (
        "Ainda não há um código. Tente de novo em alguns segundos.",
        "There is no code yet. Try again in a few seconds.",
        "Todavía no hay código. Intente otra vez en unos segundos.",
    ),
    "code_often": (
        "Foram pedidos muitos códigos. Aguarde alguns minutos e tente de novo.",
        "Too many codes were asked for. Wait a few minutes, then try again.",
        "Se pidieron demasiados códigos. Espere unos minutos e intente otra vez.",
    ),
    "code_none": (
        "Este WhatsApp não precisa de um código agora, ou não aceita códigos digitados.",
        "This WhatsApp needs no code now, or takes none that is typed.",
        "Este WhatsApp no necesita un código ahora, o no acepta códigos escritos.",
    ),
    "paused": (
        "Ainda está aí?",
        "Are you still there?",
        "¿Sigue ahí?",
    ),
    "paused_more": (
        "Paramos de renovar o código para não cansar o WhatsApp. Peça outro quando estiver com o celular "
        "na mão.",
        "We stopped renewing the code so as not to strain WhatsApp. Get another when you have the phone "
        "at hand.",
        "Dejamos de renovar el código para no cansar a WhatsApp. Pida otro cuando tenga el teléfono a mano.",
    ),
    "show": ("Mostrar o código QR", "Show the QR code", "Mostrar el código QR"),
    "until": ("Este link vale até", "This link works until", "Este enlace funciona hasta"),
    "private": (
        "Não o envie a quem não deve ter acesso a este WhatsApp.",
        "Give it to nobody who must not have this WhatsApp.",
        "No lo comparta con quien no deba tener acceso a este WhatsApp.",
    ),
    "languages": ("Idioma", "Language", "Idioma"),
    "unknown": ("Este link não é válido", "This link is not valid", "Este enlace no es válido"),
    "unknown_more": (
        "Abra o link inteiro, como veio na mensagem.",
        "Open the whole link, as it came in the message.",
        "Abra el enlace completo, como vino en el mensaje.",
    ),
    "expired": ("Este link expirou", "This link has expired", "Este enlace caducó"),
    "expired_more": (
        "Peça um novo a quem enviou este, ou use o da mensagem mais recente.",
        "Ask whoever sent it for a new one, or use the one in the newest message.",
        "Pida uno nuevo a quien se lo envió, o use el del mensaje más reciente.",
    ),
    "over": ("Esta interrupção já terminou", "This interruption is over", "Esta interrupción ya terminó"),
    "over_more": (
        "O WhatsApp voltou a conectar. Se cair outra vez, chega uma mensagem com um novo link.",
        "WhatsApp has connected since. If it drops again, a message brings a new link.",
        "WhatsApp volvió a conectarse. Si se cae otra vez, llegará un mensaje con un enlace nuevo.",
    ),
    "gone": ("Este canal não existe mais", "This channel is no more", "Este canal ya no existe"),
    "gone_more": (
        "Ele foi removido, e não há o que reconectar.",
        "It was removed: there is nothing to reconnect.",
        "Fue eliminado: no hay nada que reconectar.",
    ),
    "often": ("Muitas tentativas", "Too many tries", "Demasiados intentos"),
    "often_more": (
        "Aguarde um minuto e abra o link de novo.",
        "Wait a minute, then open the link again.",
        "Espere un minuto y abra el enlace otra vez.",
    ),
    "away": ("Um momento", "One moment", "Un momento"),
    "away_more": (
        "O serviço está voltando. Esta página tenta de novo sozinha.",
        "The service is coming back. This page tries again by itself.",
        "El servicio está volviendo. Esta página lo intenta sola otra vez.",
    ),
}
