cat > $WORK/forward <<'P'
#!/usr/bin/python3
import socket, ssl, sys, threading
tls = sys.argv[1] == "tls"
def pump(a, b):
    try:
        while True:
            data = a.recv(65536)
            if not data: break
            b.sendall(data)
    except OSError: pass
    for s in (a, b):
        try: s.shutdown(socket.SHUT_RDWR)
        except OSError: pass
def serve(address, to):
    l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind(address); l.listen(20)
    while True:
        near, _ = l.accept()
        far = socket.create_connection(to)
        if tls:
            far = ssl.create_default_context(cafile="/tmp/ca.pem").wrap_socket(far, server_hostname="email-smtp.eu-west-1.amazonaws.com")
        threading.Thread(target=pump, args=(near, far), daemon=True).start()
        threading.Thread(target=pump, args=(far, near), daemon=True).start()
for way in sys.argv[2:]:
    at, to = way.split("=")
    parse = lambda s: (s.split(":")[0], int(s.split(":")[1]))
    threading.Thread(target=serve, args=(parse(at), parse(to))).start()
P
cat > $WORK/archive <<'P'
#!/usr/bin/python3
# takes mail by the client's address, hands it to 127.0.10.4:25; offers AUTH to its own users, of whom we are none
import socket, threading
def serve(near):
    f = near.makefile("rb")
    say = lambda s: near.sendall(s.encode() + b"\r\n")
    say("220 archive ESMTP")
    far = socket.create_connection(("127.0.10.4", 25)); g = far.makefile("rb"); g.readline()
    def relay(line):
        far.sendall(line); near.sendall(g.readline())
    while True:
        line = f.readline()
        if not line: break
        verb = line.split()[0].upper() if line.split() else b""
        if verb == b"EHLO": say("250-archive"); say("250 AUTH PLAIN LOGIN")
        elif verb == b"AUTH": say("535 5.7.8 Authentication credentials invalid")
        elif verb == b"DATA":
            relay(line)
            while True:
                line = f.readline(); far.sendall(line)
                if line in (b".\r\n", b""): break
            near.sendall(g.readline())
        elif verb == b"QUIT": say("221 bye"); break
        else: relay(line)
    near.close(); far.close()
l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind(("127.0.20.1", 25)); l.listen(20)
while True:
    near, _ = l.accept()
    threading.Thread(target=serve, args=(near,), daemon=True).start()
P
setsid python3 $WORK/forward plain 127.0.20.1:587=127.0.10.1:587 </dev/null >/dev/null 2>&1 &
setsid python3 $WORK/archive </dev/null >/dev/null 2>&1 &
sleep 2
