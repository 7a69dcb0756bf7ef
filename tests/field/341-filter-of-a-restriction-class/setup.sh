for s in $(postconf -c $CFG -M | awk '$2=="inet"{print $1}'); do
    postconf -c $CFG -P "$s/inet/smtpd_sender_restrictions=\$own_rules"
    postconf -c $CFG -P "$s/inet/own_senders=check_sender_access,hash:$CFG/by_sender"
done
