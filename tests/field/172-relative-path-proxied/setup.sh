chgrp postfix $CFG/sasl_passwd.db
mv $CFG/sasl_passwd* $CFG/../spool/
