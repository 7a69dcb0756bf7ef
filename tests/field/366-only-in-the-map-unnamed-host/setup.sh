sed -i /partner/d $CFG/sasl_passwd
