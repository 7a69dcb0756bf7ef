sleep 3; sed /sasl_bulk/d /tmp/deployed/master.cf > /tmp/deployed/m; cat /tmp/deployed/m > /tmp/deployed/master.cf; sleep 3
