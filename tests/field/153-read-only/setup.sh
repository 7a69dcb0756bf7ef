mkdir $WORK/ro; mv $CFG/sasl_passwd $CFG/sasl_passwd.db $WORK/ro/; mount --bind $WORK/ro $WORK/ro; mount -o remount,ro,bind $WORK/ro
