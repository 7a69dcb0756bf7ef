cat > $WORK/send <<'P'
#!/usr/bin/python3
import sys, smtplib, ssl
sys.dont_write_bytecode = True
from settings import HOST, USER, PASSWORD
s = smtplib.SMTP(HOST, 587)
s.starttls(context=ssl.create_default_context(cafile="/tmp/ca.pem")); s.login(USER, PASSWORD)
s.sendmail(sys.argv[1], sys.argv[2:], sys.stdin.buffer.read())
P
chmod 755 $WORK/send
printf 'HOST = "email-smtp.us-east-1.amazonaws.com"\nUSER = "%s"\nPASSWORD = "%s"\n' "${OLD%%:*}" "${OLD#*:}" > $WORK/settings.py
chmod 644 $WORK/settings.py
