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
l = socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind(("127.0.0.1", 10024)); l.listen(20)
while True:
    near, _ = l.accept()
    threading.Thread(target=serve, args=(near,), daemon=True).start()
P
setsid python3 $WORK/archive </dev/null >/dev/null 2>&1 &
sleep 2
