"""A mail server of this machine that keeps what it gets, and sometimes does not take it, takes it and does not say so, or refuses it for good."""

import collections
import email
import email.policy

from aiosmtpd.controller import Controller

HOST = "127.0.0.1"
NOT_TAKEN, NOT_SAID, REFUSED = "mails answered by 451", "mails taken and answered by 451", "mails answered by 550"
FATES = (NOT_TAKEN, NOT_SAID, REFUSED)
ANSWERS = {NOT_TAKEN: "451 try later", NOT_SAID: "451 try later", REFUSED: "550 not here", None: "250 OK"}


class MailServer:
    """Listens on `port` between `start` and `stop`. The first mails meet these fates, the others none; `met` counts them."""

    def __init__(self, port, fates):
        self.port, self.fates = port, list(fates)
        # [(sender, receivers, mail)]
        self.mails, self.met = [], collections.Counter()
        self.controller = None

    def start(self):
        self.controller = Controller(self, hostname=HOST, port=self.port)
        self.controller.start()

    def stop(self):
        if self.controller is not None:
            self.controller.stop()
            self.controller = None

    async def handle_DATA(self, _server, _session, envelope):
        """aiosmtpd's hook: a mail is there, and this is what it is answered."""
        fate = self.fates.pop(0) if self.fates else None
        if fate is not None:
            self.met[fate] += 1
        if fate not in (NOT_TAKEN, REFUSED):
            mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
            self.mails.append((envelope.mail_from, tuple(envelope.rcpt_tos), mail))
        return ANSWERS[fate]
