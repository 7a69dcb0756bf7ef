postmap -c $CFG lmdb:$CFG/sasl_passwd
