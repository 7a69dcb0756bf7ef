chgrp postfix $CFG/sasl_passwd.lmdb
