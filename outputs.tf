output "bucket" {
  description = "Bucket to write stats files to."
  value       = aws_s3_bucket.stats.bucket

  depends_on = [aws_s3_bucket_notification.stats] # who learns the name may write at once
}

output "prefix" {
  description = "Folder of the bucket that files are taken from; the folder below it names the job."
  value       = var.stats_prefix
}

output "upload_command" {
  description = "Paste it into a shell: a file of your own, in Datadog some seconds later as my.first.metric{job:my-job}."
  value       = <<-EOT
    printf '{"timestamp": %d, "my.first.metric": 42}' "$(date +%s)" | aws s3 cp - "s3://${aws_s3_bucket.stats.bucket}/${var.stats_prefix}my-job/$(date +%s).json" --region ${local.region}
  EOT

  depends_on = [aws_s3_bucket_notification.stats]
}

output "queue_urls" {
  description = "Queues: stats (files to submit), dead_letter (failed for too long), rejected (refused, with the reason)."
  value = {
    stats       = aws_sqs_queue.stats.url
    dead_letter = aws_sqs_queue.dead_letter.url
    rejected    = aws_sqs_queue.rejected.url
  }
}

output "function_names" {
  description = "Lambda functions: metric_submit, and mock_datasource unless it is turned off (null)."
  value = {
    metric_submit   = aws_lambda_function.metric_submit.function_name
    mock_datasource = one(aws_lambda_function.mock_datasource[*].function_name)
  }
}

output "log_groups" {
  description = "Log groups of the functions, to follow with `aws logs tail --follow`."
  value = {
    metric_submit   = aws_cloudwatch_log_group.metric_submit.name
    mock_datasource = one(aws_cloudwatch_log_group.mock_datasource[*].name)
  }
}

output "alarm_names" {
  description = "CloudWatch alarms; the description of each says what to do first."
  value       = sort(local.alarm_names)
}

output "alarm_topic_arn" {
  description = "SNS topic that the alarms go to, to subscribe a pager or a chat."
  value       = aws_sns_topic.alarms.arn
}

output "dashboard_url" {
  description = "CloudWatch dashboard of the pipeline's health."
  value       = "https://${local.region}.${local.console}/cloudwatch/home?region=${local.region}#dashboards/dashboard/${aws_cloudwatch_dashboard.pipeline.dashboard_name}"
}

output "producer_policy_json" {
  description = "IAM policy to attach to a job's role: it may write below the prefix, and nothing else."
  value       = data.aws_iam_policy_document.producer.json

  depends_on = [aws_s3_bucket_notification.stats]
}
