# Daemons that have read the table go on with it.
PORT=$(sed -n 's/^\(127\.0\.0\.1:\)\{0,1\}\([0-9][0-9]*\) *inet.*/\2/p' $CFG/master.cf | head -1)
python3 -c "import smtplib, sys; smtplib.SMTP('127.0.0.1', int(sys.argv[1])).sendmail('u@a.example', ['b@example.com'], 'Subject: between\n\nhello\n')" $PORT
sleep 3
cat $CFG/sasl_passwd > $WORK/l; cat $WORK/l >> $CFG/sasl_passwd
