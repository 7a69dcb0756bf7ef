echo "[email-smtp.us-east-1.amazonaws.com]:587 $OLD" > $CFG/sasl_passwd
