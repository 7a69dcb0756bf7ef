chattr +i $CFG/sasl_passwd
