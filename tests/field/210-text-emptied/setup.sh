: > $CFG/sasl_passwd
