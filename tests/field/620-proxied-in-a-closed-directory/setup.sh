chgrp postfix $CFG/sasl_passwd.db; mkdir -m 700 $CFG/sasl; mv $CFG/sasl_passwd* $CFG/sasl/
