mkdir $WORK/theirs; mv $CFG/sasl_passwd $CFG/sasl_passwd.db $WORK/theirs/; chown nobody $WORK/theirs
