umount $WORK/ro
