echo "127.0.10.2 smtp-relay-partner.internal" >> /etc/hosts
