postconf -c $CFG -P smtp/unix/smtp_sasl_password_maps=hash:$CFG/sasl_used
