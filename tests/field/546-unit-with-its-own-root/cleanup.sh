umount -R -l /tmp/jail
