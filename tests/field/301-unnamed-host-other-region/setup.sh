echo "127.0.10.2 smtp-relay-eu.internal" >> /etc/hosts
