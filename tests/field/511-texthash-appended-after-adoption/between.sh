cat $CFG/sasl_passwd > $WORK/l; cat $WORK/l >> $CFG/sasl_passwd
