for f in sasl_passwd sasl_passwd.db; do mv $CFG/$f $WORK/$f; ln -s $WORK/$f $CFG/$f; done
