sed -i /eu-west-1/d $CFG/sasl_passwd
