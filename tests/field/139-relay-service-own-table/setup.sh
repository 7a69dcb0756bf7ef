postconf -c $CFG -P relay/unix/smtp_sasl_password_maps=hash:$CFG/sasl_relay
