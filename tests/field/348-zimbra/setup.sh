mount -t tmpfs -o mode=755 tmpfs /opt
mkdir -p /opt/zimbra/common/sbin /opt/upper /opt/work
cp -a /usr/sbin/post* /opt/zimbra/common/sbin/
mount -t overlay -o lowerdir=/usr/sbin,upperdir=/opt/upper,workdir=/opt/work overlay /usr/sbin
mountpoint -q /usr/sbin && rm /usr/sbin/postconf /usr/sbin/postmap
