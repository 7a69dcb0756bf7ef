postconf -c $CFG -P 'smtp/unix/relayhost=[email-smtp.us-east-1.amazonaws.com]:587'
