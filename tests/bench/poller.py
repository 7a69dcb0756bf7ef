#!/usr/bin/env python3
"""What `tests/bench/idle` measures relaykey beside: the least that a poller with boto3 can be. It reads the secret, compares
the version with the one before, and sleeps; it looks at no mail server, writes nothing and logs in nowhere. SIGHUP makes it
poll now, as it does relaykey.

    poller.py SECRET SECONDS
"""

import signal
import sys

import boto3

secret, interval = sys.argv[1], float(sys.argv[2])
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
client = boto3.client("secretsmanager")
version = None
while True:
    answer = client.get_secret_value(SecretId=secret)
    if answer["VersionId"] != version:
        version = answer["VersionId"]
        print(version, flush=True)
    signal.sigtimedwait({signal.SIGHUP}, interval)
