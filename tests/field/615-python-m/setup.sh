cat > $WORK/send <<'P'
#!/usr/bin/python3
import sys, smtplib, ssl
u, p = open("/tmp/relay-login").read().strip().split(":", 1)
s = smtplib.SMTP("email-smtp.us-east-1.amazonaws.com", 587)
s.starttls(context=ssl.create_default_context(cafile="/tmp/ca.pem")); s.login(u, p)
s.sendmail(sys.argv[1], sys.argv[2:], sys.stdin.buffer.read())
P
chmod 755 $WORK/send
echo "$OLD" > /tmp/relay-login; chmod 644 /tmp/relay-login
cp $WORK/send $WORK/sesrelay.py
