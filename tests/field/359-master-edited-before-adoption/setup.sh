sleep 4; postfix -c $CFG start; sleep 4
cp $CFG/master.cf $CFG/m; sed -i /sasl_bulk/d $CFG/m; cat $CFG/m > $CFG/master.cf; rm $CFG/m
