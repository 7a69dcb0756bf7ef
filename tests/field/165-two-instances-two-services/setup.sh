postconf -c $CFG2 -P relay/unix/smtp_sasl_password_maps=hash:$CFG2/sasl_relay
