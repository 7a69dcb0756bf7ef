cp $CFG/sasl_passwd $CFG/sasl_passwd.db $WORK/
