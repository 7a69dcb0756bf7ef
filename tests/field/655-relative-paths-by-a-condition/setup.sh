mv $CFG/sasl_* $CFG/../spool/
