ln -s $CFG $WORK/postfix
