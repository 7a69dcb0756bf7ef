rm $CFG/sasl_passwd $CFG/sasl_bulk
