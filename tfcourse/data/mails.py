"""What a mail says: its subject and its text, without headers, attachments and HTML."""

import email
import email.errors
import email.header
import email.message
import html.parser
import re

_REPLY = re.compile(r"^(?:\s*(?:re|fwd?|aw)\s*:|\s*\[[^\]]*\])+", re.IGNORECASE)
_HTML = re.compile(r"<(?:html|body|br|font)\b", re.IGNORECASE)
_MARKED = re.compile(r"<!\[[^>]*>?")  # "<![if ...]>": at most others like it the parser raises
_NOT_LETTERS = re.compile(r"[\W\d_]+")
SILENT = frozenset({"script", "style", "title"})  # elements whose text nobody sees


def read_mail(data: bytes) -> tuple[str, str]:
    """Return subject and text of a mail; what can't be decoded is left out or stays as it is.

    Of several parts those of plain text count, else those of HTML, without tags and comments. From
    strangers' mails comes everything: no bytes but parts within parts a hundred deep raise.
    """
    mail = email.message_from_bytes(data)
    parts = [part for part in mail.walk() if not part.is_multipart()]
    for kind in ("text/plain", "text/html"):
        if chosen := [_decoded(part) for part in parts if part.get_content_type() == kind]:
            text = "\n".join(chosen)
            is_html = kind == "text/html" or _HTML.search(text)  # some call it plain
            return _subject(mail), visible_text(text) if is_html else text
    return _subject(mail), ""


def thread_of(subject: str) -> str:
    """Return what a mail has in common with the answers to it, and a circular with its variants.

    Without "Re:", the list's name in brackets, digits and marks; "" if nothing else is there.
    """
    return letters_of(_REPLY.sub("", subject)).removeprefix("re ")


def letters_of(text: str) -> str:
    """Return the words in lower case, without digits and marks."""
    return _NOT_LETTERS.sub(" ", text.lower()).strip()


def visible_text(text: str) -> str:
    """Return what a browser shows of HTML."""
    reader = _Reader()
    reader.feed(_MARKED.sub("", text))
    reader.close()
    return "".join(reader.found)


class _Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.silent = [], 0

    def handle_starttag(self, tag, attrs):
        self.silent += tag in SILENT
        self.found.append(" ")

    def handle_endtag(self, tag):
        self.silent = max(0, self.silent - (tag in SILENT))
        self.found.append(" ")

    def handle_data(self, data):
        if not self.silent:
            self.found.append(data)


def _decoded(part: email.message.Message) -> str:
    payload = part.get_payload(decode=True) or b""
    try:
        charset = part.get_content_charset() or "utf-8"
        return payload.decode(charset, "ignore")
    except (LookupError, ValueError):  # no such encoding, no name of one, or none that can ignore
        return payload.decode("latin-1")


def _subject(mail: email.message.Message) -> str:
    subject = str(mail.get("Subject", ""))
    try:
        return str(email.header.make_header(email.header.decode_header(subject)))
    except (ValueError, LookupError, email.errors.MessageError):
        return subject
