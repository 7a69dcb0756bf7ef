chgrp postfix $CFG/sasl_passwd.db
sed -i 's/^proxymap unix - - n/proxymap unix - - -/' $CFG/master.cf
grep '^proxymap' $CFG/master.cf
J=$CFG/../spool$CFG
mkdir -p $J; cp -p $CFG/sasl_passwd $CFG/sasl_passwd.db $J/
