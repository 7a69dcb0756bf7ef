#!/usr/bin/env python3
"""The AWS API server of the tests: moto, and what moto lacks, on two loopback ports, one of them TLS.

Prints one line of JSON, {"port": N, "tls_port": N}, when it listens, and ends when its standard input closes, so that it never
outlives the test program that started it.

With --forks SOCKET it serves nobody itself: who connects there and says {"cert": FILE, "key": FILE} gets a server of its own, with that
line as its answer, which ends when the connection does. To load all of moto takes longer than most tests need one for.

Every test brings an access key id of its own, as it brings secrets of its own: faults and the call log go by it, so
that tests share one server without meeting.

  POST /lab/faults   {"key": "AKIA…", "action": "GetSecretValue", "count": 1, "kind": "error", …}
                     kind error:     "status", "code", "message" (a JSON or XML answer, as the service's protocol has it)
                          answer:    "status", "body", "type" (this very answer)
                          hang:      "seconds" without an answer, then the connection closes
                          truncate:  half of the real answer
                     count 0: for good; only: for requests alone that have this text in them
  POST /lab/heal     {"key": "AKIA…"}: no more faults for that key
  GET  /lab/calls?key=AKIA…   every call made with that key: service, action, about, decrypt, status
  GET  /lab/messages          the messages that SES took, in any region: from, to, raw
  POST /lab/iam      {"user": "ses-smtp", "make": true}: makes the user and a key of it where make is true; gives its keys with their
                     secrets, which the stand-in for SES has to know: id, secret, status; "delete": "AKIA…": a person deletes that one
  POST /lab/used     {"user": …, "id": "AKIA…", "at": "2026-01-31T12:00:00", "service": "ses"}: its last use
  POST /lab/empty    {"secret": …, "version": …}: a version without a value, as AWSPENDING, as Secrets Manager begins a rotation
  POST /lab/clock    {"offset": SECONDS}: what is made from now on is made so much later than it is

Everything else is moto's, /moto-api/reset included; but a secret without the label asked for is told as AWS tells it,
where moto says that there is no such secret; a SecureString is no readable text unless it is decrypted; GetSecretValue without
label and version gives AWSCURRENT, where moto goes by what was put last; ListSecretVersionIds says when each version was made, and not
when it is asked; a token of PutSecretValue that is known with another value
is refused; and PutParameter without KeyId takes the default key. A table of ten thousand items is not copied whole for each
transaction, nor sorted anew for each page.
"""

import argparse
import base64
import contextlib
import datetime
import io
import json
import os
import re
import select
import signal
import socket
import ssl
import sys
import threading
import time
import urllib.parse

import moto.iam.models
import moto.secretsmanager.models
import moto.ssm.models
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.table import Table
from moto.iam.models import AccessKeyLastUsed, iam_backends
from moto.moto_api._internal import mock_random
from moto.secretsmanager.exceptions import ResourceExistsException, SecretHasNoValueException
from moto.secretsmanager.models import SecretsManagerBackend, secretsmanager_backends
from moto.ses.models import ses_backends
from moto.ssm.models import Parameter, SimpleSystemManagerBackend
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

CREDENTIAL = re.compile(r"Credential=([^/]+)/\d+/[^/]+/([^/]+)/aws4_request")
# What a call is about. Never a value: the log is shown when a test fails.
SUBJECTS = ("SecretId", "Name", "RoleArn", "TableName")
# SES v2 names an action by method and path (a part of them).
SES_ACTIONS = {"/v2/email/outbound-emails": "SendEmail", "/v2/email/account": "GetAccount"}


MOTOS_ANSWER = SecretsManagerBackend.get_secret_value


def get_secret_value(backend, secret_id, version_id, version_stage):
    if version_stage and not version_id and backend._is_valid_identifier(secret_id):
        secret = backend.secrets[secret_id]
        labels = (label for version in secret.versions.values() for label in version["version_stages"])
        if version_stage not in labels and not secret.is_deleted():
            raise SecretHasNoValueException(version_stage)
    if not version_stage and not version_id and backend._is_valid_identifier(secret_id):
        versions = backend.secrets[secret_id].versions.values()
        if any("AWSCURRENT" in version["version_stages"] for version in versions):
            version_stage = "AWSCURRENT"
    return MOTOS_ANSWER(backend, secret_id, version_id, version_stage)


MOTOS_PUT = SecretsManagerBackend.put_secret_value


def put_secret_value(backend, secret_id, secret_string, secret_binary, client_request_token, version_stages):
    if backend._is_valid_identifier(secret_id):
        known = backend.secrets[secret_id].versions.get(client_request_token)
        if known and (known.get("secret_string"), known.get("secret_binary")) != (secret_string or None, secret_binary or None):
            raise ResourceExistsException("a version with this token and another value exists")
    return MOTOS_PUT(backend, secret_id, secret_string, secret_binary, client_request_token, version_stages)


MOTOS_PARAMETER = SimpleSystemManagerBackend.put_parameter


def put_parameter(backend, *args, **given):
    names = MOTOS_PARAMETER.__code__.co_varnames[1:]
    given.update(zip(names, args))
    if given.get("keyid") is None and given.get("overwrite"):
        given["keyid"] = "alias/aws/ssm"
    return MOTOS_PARAMETER(backend, **given)


def list_secret_version_ids(backend, secret_id):
    secret = backend.secrets[secret_id]
    listed = [{"CreatedDate": version["createdate"], "VersionId": version_id, "VersionStages": version["version_stages"]}
              for version_id, version in secret.versions.items()]
    return json.dumps({"ARN": secret.arn, "Name": secret.name, "NextToken": "", "Versions": listed})


SecretsManagerBackend.list_secret_version_ids = list_secret_version_ids
SecretsManagerBackend.get_secret_value = get_secret_value
SecretsManagerBackend.put_secret_value = put_secret_value
SimpleSystemManagerBackend.put_parameter = put_parameter


MOTOS_TRANSACTION = DynamoDBBackend.transact_write_items


def transact_write_items(backend, transact_items):
    """Of a transaction that fails the items are put back that it names; a put makes a new item, so that the old ones are whole."""
    before = []
    for ((_, op),) in (item.items() for item in transact_items):
        table = backend.tables.get(op["TableName"])
        if table is not None:
            partition, sort = backend.get_keys_value(table, op.get("Item") or op["Key"])
            known = table.items[partition].get(sort) if partition in table.items else None
            before.append((table, partition, sort, known))
    try:
        return MOTOS_TRANSACTION(backend, transact_items)
    except Exception:
        for table, partition, sort, known in before:
            table.sorted = None
            if known is None:
                table.items[partition].pop(sort, None)
            else:
                table.items[partition][sort] = known
        raise


MOTOS_ITEMS = Table.all_items


def all_items(table):
    known = getattr(table, "sorted", None)
    if known is None:
        known = table.sorted = MOTOS_ITEMS(table)
    return list(known)


def forgets_order(change):
    def changed(table, *args, **given):
        table.sorted = None
        return change(table, *args, **given)
    return changed


# The copy that is put back then is the table itself.
DynamoDBBackend.transact_write_items, Table.__deepcopy__ = transact_write_items, lambda table, _memo: table
Table.all_items = all_items
Table.put_item, Table.delete_item = forgets_order(Table.put_item), forgets_order(Table.delete_item)


class Clock:
    """What moto takes the time from, and for the rest what the module is that it stands for."""

    offset = 0.0

    def __init__(self, module):
        self.module = module

    def __getattr__(self, name):
        return getattr(self.module, name)

    def time(self):
        return time.time() + Clock.offset

    @staticmethod
    def utcnow():
        now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=Clock.offset)
        return now.replace(tzinfo=None)


moto.secretsmanager.models.time = Clock(time)
moto.iam.models.utcnow = moto.ssm.models.utcnow = Clock.utcnow


def iam_user(name, make):
    backend = iam_backends["123456789012"]["aws"]
    if make and name not in backend.users:
        backend.create_user("us-east-1", name)
    user = backend.users[name]
    if make:
        backend.create_access_key(name)
    return user


# moto's SecureString is its value behind a prefix; AWS gives ciphertext to those who do not ask for decryption.
def encrypt(parameter, value):
    return f"kms:{parameter.keyid}:" + base64.b64encode(value.encode()[::-1]).decode()


def decrypt(parameter, value):
    if parameter.parameter_type != "SecureString":
        return value
    return base64.b64decode(value.rpartition(":")[2])[::-1].decode()


Parameter.encrypt, Parameter.decrypt = encrypt, decrypt


class Quiet(WSGIRequestHandler):
    def log_request(self, *args):
        pass

    def log(self, *args):
        pass


class Call:
    """One signed request: who, which service, which action, about what."""

    def __init__(self, environ, key, service):
        size = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(size)
        environ["wsgi.input"] = io.BytesIO(body)
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        rest = SES_ACTIONS.get(environ["PATH_INFO"], "")
        self.json = bool(target or rest)
        self.key, self.service = key, service
        try:
            fields = json.loads(body or b"{}") if self.json else dict(urllib.parse.parse_qsl(body.decode()))
        except ValueError:
            fields = {}
        self.action = target.rpartition(".")[2] or rest or fields.get("Action", "")
        self.about = next((fields[name] for name in SUBJECTS if name in fields), "")
        self.external_id = fields.get("ExternalId")
        self.decrypt = fields.get("WithDecryption")
        self.text = body.decode(errors="replace")


class Lab:
    def __init__(self):
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.lock = threading.Lock()
        self.turns = threading.Lock()
        self.faults = []
        self.calls = []

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"].startswith("/lab/"):
            return self.own(environ, start_response)
        signed = CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
        if signed is None:
            return self.moto(environ, start_response)
        call = Call(environ, *signed.groups())
        entry = {"key": call.key, "service": call.service, "action": call.action, "about": call.about,
                 "external_id": call.external_id, "decrypt": call.decrypt, "status": 0}
        with self.lock:
            self.calls.append(entry)
        fault = self.due(call)

        def answer(status, headers, *rest):
            entry["status"] = int(status.split()[0])
            return start_response(status, headers, *rest)

        if fault is None:
            # A transaction of moto's looks and writes in steps: one at a time.
            with self.turns if call.service == "dynamodb" else contextlib.nullcontext():
                return self.moto(environ, answer)
        return getattr(self, "fault_" + fault["kind"])(fault, call, environ, answer)

    def own(self, environ, start_response):
        with self.lock:
            if environ["PATH_INFO"] == "/lab/faults":
                body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                self.faults.append({"count": 1, **json.loads(body)})
                reply = {}
            elif environ["PATH_INFO"] == "/lab/heal":
                body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                healed = json.loads(body)["key"]
                self.faults = [fault for fault in self.faults if fault["key"] != healed]
                reply = {}
            elif environ["PATH_INFO"] in ("/lab/iam", "/lab/used", "/lab/clock"):
                asked = json.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
                reply = {}
                if "offset" in asked:
                    Clock.offset = asked["offset"]
                elif "at" in asked:
                    keys = iam_user(asked["user"], False).access_keys
                    at = datetime.datetime.fromisoformat(asked["at"])
                    for key in (key for key in keys if key.access_key_id == asked["id"]):
                        key.last_used = AccessKeyLastUsed(at, asked["service"], "eu-west-1")
                else:
                    user = iam_user(asked["user"], asked.get("make", False))
                    user.access_keys = [key for key in user.access_keys if key.access_key_id != asked.get("delete")]
                    keys = user.access_keys
                    reply = [{"id": key.access_key_id, "secret": key.secret_access_key, "status": key.status}
                             for key in keys]
            elif environ["PATH_INFO"] == "/lab/empty":
                asked = json.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
                versions = secretsmanager_backends["123456789012"]["eu-west-1"].secrets[asked["secret"]].versions
                for version in versions.values():
                    version["version_stages"] = [label for label in version["version_stages"] if label != "AWSPENDING"]
                made = int(time.time() + Clock.offset)
                versions[asked["version"]] = {
                    "createdate": made, "version_id": asked["version"], "version_stages": ["AWSPENDING"]}
                reply = {}
            elif environ["PATH_INFO"] == "/lab/messages":
                backends = [backend for regions in ses_backends.values() for backend in regions.values()]
                reply = [{"from": message.source, "to": message.destinations, "raw": message.raw_data}
                         for backend in backends for message in backend.sent_messages]
            else:
                key = urllib.parse.parse_qs(environ["QUERY_STRING"])["key"][0]
                reply = [call for call in self.calls if call["key"] == key]
        return send(start_response, "200 OK", "application/json", json.dumps(reply).encode())

    def due(self, call):
        with self.lock:
            for fault in self.faults:
                if (fault["key"], fault["action"]) == (call.key, call.action) and fault.get("only", "") in call.text:
                    if fault["count"] == 1:
                        self.faults.remove(fault)
                    elif fault["count"] > 1:
                        fault["count"] -= 1
                    return fault
        return None

    @staticmethod
    def fault_error(fault, call, _environ, answer):
        code, message = fault["code"], fault.get("message", "")
        if call.json:
            kind, body = "application/x-amz-json-1.1", json.dumps({"__type": code, "message": message})
        else:
            kind = "text/xml"
            body = (f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
                    "<RequestId>lab-request</RequestId></ErrorResponse>")
        headers = [("x-amzn-RequestId", "lab-request"), ("x-amzn-ErrorType", code)]
        return send(answer, f"{fault['status']} Fault", kind, body.encode(), headers)

    @staticmethod
    def fault_answer(fault, _call, _environ, answer):
        return send(answer, f"{fault['status']} Fault", fault.get("type", "application/x-amz-json-1.1"),
                    fault["body"].encode())

    @staticmethod
    def fault_hang(fault, *_):
        time.sleep(fault["seconds"])
        raise ConnectionAbortedError("the fault that was asked for")

    def fault_truncate(self, _fault, _call, environ, answer):
        whole = b"".join(self.moto(environ, answer))
        return [whole[: len(whole) // 2]]  # the Content-Length promises all of it


def send(start_response, status, kind, body, more=()):
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *more])
    return [body]


def end_with(alive):
    alive.read()
    os._exit(0)


def fork_servers(path):
    for service in ("dynamodb", "iam", "secretsmanager", "ses", "sesv2", "ssm", "sts"):
        create_backend_app(service)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        # Nothing has made a thread yet, so that all there is goes on in the child.
        if os.fork() == 0:
            listener.close()
            # Else every server would give the same key ids.
            mock_random.seed()
            text = connection.makefile("rw")
            asked = json.loads(text.readline())
            serve(asked["cert"], asked["key"], text, text)
        connection.close()


def serve(cert, key, out, alive):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    lab = Lab()
    plain, secure = (make_server("127.0.0.1", 0, lab, threaded=True, request_handler=Quiet, ssl_context=context)
                     for context in (None, tls))
    threading.Thread(target=secure.serve_forever, daemon=True).start()
    threading.Thread(target=end_with, args=(alive,), daemon=True).start()
    print(json.dumps({"port": plain.server_port, "tls_port": secure.server_port}), file=out, flush=True)
    plain.serve_forever()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cert", help="PEM file: certificate chain of the TLS port")
    parser.add_argument("--key", help="PEM file: its private key")
    parser.add_argument("--forks", help="a socket to make, for those who want a server of their own")
    options = parser.parse_args()
    if options.forks:
        fork_servers(options.forks)
    else:
        serve(options.cert, options.key, sys.stdout, sys.stdin)


if __name__ == "__main__":
    main()
