mv $CFG/sasl_passwd* $CFG/../spool/
