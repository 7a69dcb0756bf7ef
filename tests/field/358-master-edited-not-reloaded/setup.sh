mkdir -m 755 /tmp/deployed
mv $CFG/master.cf /tmp/deployed/master.cf; ln -s /tmp/deployed/master.cf $CFG/master.cf
