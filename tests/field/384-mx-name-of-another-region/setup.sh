cat > $WORK/names <<'P'
#!/usr/bin/python3
import socket, struct, threading
A = {"email-smtp.us-east-1.amazonaws.com": "127.0.10.1", "smtp-relay-partner.internal": "127.0.10.2"}
MX = {"mailout-eu.internal": "smtp-relay-partner.internal"}
def spelt(name): return b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\0"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("127.0.0.53", 53))
while True:
    q, who = s.recvfrom(512)
    at, labels = 12, []
    while q[at]:
        labels.append(q[at + 1:at + 1 + q[at]].decode()); at += 1 + q[at]
    at += 1; name = ".".join(labels).lower(); kind, = struct.unpack(">H", q[at:at + 2]); asked = q[12:at + 4]
    data = None
    if kind == 1 and name in A: data = socket.inet_aton(A[name])
    if kind == 15 and name in MX: data = struct.pack(">H", 10) + spelt(MX[name])
    known = name in A or name in MX
    answer = b"" if data is None else b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(data)) + data
    s.sendto(q[:2] + struct.pack(">HHHHH", 0x8580 | (0 if known else 3), 1, 1 if answer else 0, 0, 0) + asked + answer, who)
P
setsid python3 $WORK/names </dev/null >/dev/null 2>&1 &
echo "127.0.10.2 smtp-relay-partner.internal" >> /etc/hosts
echo "nameserver 127.0.0.53" > /etc/resolv.conf
sleep 1
