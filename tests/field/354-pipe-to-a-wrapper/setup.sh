cat > $WORK/send <<P
#!/usr/bin/python3
import sys, smtplib, ssl, json
c = json.load(open("$WORK/settings.json"))
s = smtplib.SMTP(c["host"], 587)
s.starttls(context=ssl.create_default_context(cafile="/tmp/ca.pem")); s.login(c["user"], c["password"])
s.sendmail(sys.argv[1], sys.argv[2:], sys.stdin.buffer.read())
P
chmod 755 $WORK/send
printf '{"host": "email-smtp.us-east-1.amazonaws.com", "user": "%s", "password": "%s"}' "${OLD%%:*}" "${OLD#*:}" > $WORK/settings.json
chmod 644 $WORK/settings.json
printf "#!/bin/sh\nexec $WORK/send \"\$@\"\n" > $WORK/wrapper; chmod 755 $WORK/wrapper
