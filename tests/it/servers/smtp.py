"""An SMTP server for tests: writes each mail as a line of JSON, answers as told.

usage: smtp.py DIR MODE [ANSWER...]    MODE: plain, starttls or tls

Writes its port to DIR/port and mails to DIR/mails. The n-th DATA is answered with the n-th ANSWER ("ok",
"451 later", "554 no", "drop"), later ones with 250. Receivers: gone@ is refused (550), busy@ is refused
once (451). With DIR/password, only alice with that password may send.
"""

import asyncio
import json
import pathlib
import signal
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

base, mode, answers = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
password = base / "password"


class Handler:
    busy = True

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("gone@"):
            return "550 no such receiver"
        if address.startswith("busy@") and Handler.busy:
            Handler.busy = False
            return "451 come back later"
        envelope.rcpt_tos.append(address)
        return "250 fine"

    async def handle_DATA(self, server, session, envelope):
        answer = answers.pop(0) if answers else "ok"
        with open(base / "tries", "a") as tries:
            tries.write(answer + "\n")
        if answer == "drop":
            server.transport.abort()
            return "250 never seen"
        if answer != "ok":
            return answer
        mail = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "tls": session.ssl is not None or mode == "tls",
            "mail": envelope.content.decode("utf-8"),
        }
        with open(base / "mails", "a") as mails:
            mails.write(json.dumps(mail) + "\n")
        return "250 kept as no. 1"


def check(server, session, envelope, mechanism, data):
    good = data.login == b"alice" and data.password == password.read_bytes()
    return AuthResult(success=good, handled=False)


def tls():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(base / "cert.pem", base / "key.pem")
    return context


def smtp():
    more = {"authenticator": check, "auth_required": True} if password.exists() else {}
    if mode == "starttls":
        more |= {"tls_context": tls(), "require_starttls": True}
    if mode == "tls":
        more |= {"auth_require_tls": False}
    return SMTP(Handler(), hostname="localhost", **more)


async def main():
    loop = asyncio.get_running_loop()
    context = tls() if mode == "tls" else None
    server = await loop.create_server(smtp, host="127.0.0.1", port=0, ssl=context)
    partial = base / "port.new"
    partial.write_text(str(server.sockets[0].getsockname()[1]))
    partial.rename(base / "port")
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


asyncio.run(main())
