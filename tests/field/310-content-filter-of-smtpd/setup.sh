for s in $(postconf -c $CFG -M | awk '$2=="inet"{print $1}'); do postconf -c $CFG -P "$s/inet/content_filter=smtp:[email-smtp.us-east-1.amazonaws.com]:587"; done
