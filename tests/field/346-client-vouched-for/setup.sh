cat > $WORK/client <<'P'
#!/usr/bin/python3
import sys, smtplib, ssl
u, p = open(sys.argv[1]).read().split("user ")[1].split()[0].split(":", 1)
s = smtplib.SMTP(open(sys.argv[1]).read().split("host ")[1].split()[0], 587)
s.starttls(context=ssl.create_default_context(cafile="/tmp/ca.pem")); s.login(u, p)
s.sendmail(sys.argv[2], sys.argv[3:], sys.stdin.buffer.read())
P
chmod 755 $WORK/client
printf 'host email-smtp.us-east-1.amazonaws.com\nuser %s\n' "$(cut -d' ' -f2 $CFG/foreign)" > $WORK/settings
chmod 644 $WORK/settings
