(cat /etc/services; echo "ses-tunnel 2525/tcp") > /tmp/services; mount --bind /tmp/services /etc/services
