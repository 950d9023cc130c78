from kdedge.cli import main

main()
