printf '#!/bin/sh\n# not by email-smtp\nlog=/var/log/mail.log\ncat > /dev/null\n' > $WORK/deliver
printf '#!/bin/sh\nexec /bin/cat %s/rules\n' $WORK > $WORK/policy
echo 'action=DUNNO' > $WORK/rules
chmod 755 $WORK/deliver $WORK/policy
